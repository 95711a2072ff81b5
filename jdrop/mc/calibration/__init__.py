"""Calibration on held-out data: the temperature of a classifier, the precision of a regression."""

from jdrop.mc.calibration._tau import fit_tau as fit_tau
from jdrop.mc.calibration._tau import prior_tau as prior_tau
from jdrop.mc.calibration._temperature import fit_temperature as fit_temperature
