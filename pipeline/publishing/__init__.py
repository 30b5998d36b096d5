"""Publishing: runs of a dataset, the texts that go with them, and what must not be published with them."""

from .delivery import Delivery, plan_publication, publish, rehearse
from .order import PublishOrder
from .publication import Publication

__all__ = [
    "Delivery",
    "Publication",
    "PublishOrder",
    "plan_publication",
    "publish",
    "rehearse",
]
