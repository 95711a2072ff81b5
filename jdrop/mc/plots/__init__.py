"""Figures of uncertainty, each drawn on axes that are passed in and returned. They need matplotlib."""

from jdrop.mc.plots._classification import rate_curve as rate_curve
from jdrop.mc.plots._classification import reliability_diagram as reliability_diagram
from jdrop.mc.plots._classification import risk_coverage as risk_coverage
from jdrop.mc.plots._classification import uncertainty_histogram as uncertainty_histogram
from jdrop.mc.plots._images import most_least_certain as most_least_certain
from jdrop.mc.plots._regression import regression_band as regression_band
