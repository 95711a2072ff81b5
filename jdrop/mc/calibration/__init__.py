"""Calibration on held-out data: the temperature of a classifier, the precision of a regression, the rate."""

from jdrop.mc.calibration._rate import RateSelection as RateSelection
from jdrop.mc.calibration._rate import select_rate as select_rate
from jdrop.mc.calibration._tau import fit_tau as fit_tau
from jdrop.mc.calibration._tau import prior_tau as prior_tau
from jdrop.mc.calibration._temperature import fit_temperature as fit_temperature
