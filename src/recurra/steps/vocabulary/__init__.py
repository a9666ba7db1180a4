"""What a step may say: the table of rules, filled by the files beside this one."""

from recurra.steps.vocabulary import layout, pointwise, products
from recurra.steps.vocabulary.table import OF_MASKS, PASSED_THROUGH, RULES, Refusal, converted, is_mask

__all__ = ["OF_MASKS", "PASSED_THROUGH", "RULES", "Refusal", "converted", "is_mask", "layout", "pointwise", "products"]
