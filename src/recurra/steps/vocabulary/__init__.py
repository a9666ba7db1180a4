"""What a step may say: the table of rules, filled by the files beside this one."""

from recurra.steps.vocabulary import layout, pointwise, products
from recurra.steps.vocabulary.table import PASSED_THROUGH, RULES, Refusal

__all__ = ["PASSED_THROUGH", "RULES", "Refusal", "layout", "pointwise", "products"]
