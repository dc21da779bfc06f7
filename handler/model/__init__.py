"""The model: loaded strictly, placed on its device, with the packages that travelled beside it."""
