"""Variants: what else a task can be, each a run of its own, ``task@variant``.

The samples of a variant keep their ids, and their pictures' ids and splits: it is the same samples that are asked
otherwise or shown otherwise.
"""

from .catalogue import Variant, is_reserved, plan_variants

__all__ = ["Variant", "is_reserved", "plan_variants"]
