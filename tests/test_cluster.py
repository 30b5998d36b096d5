from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).parent.parent / "cluster.yaml"


def test_the_cluster_file_fits_rays_own_schema() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    cluster = yaml.safe_load(CLUSTER.read_text())
    validate_config(fillout_defaults(cluster) | {"cluster_synced_files": []})
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(fillout_defaults(cluster | {"max_wokers": 8}) | {"cluster_synced_files": []})
