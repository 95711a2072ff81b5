"""Monte Carlo dropout from samples to a decision: measures, metrics, calibration, prediction sets, regression, speed.

    python -m experiments uncertainty

classification  the network of `digits` on 300 training digits: what uncertainty is worth on 997 test digits, and on
                rotated and corrupted ones; temperature scaling and conformal sets, fitted on 500 validation digits
regression      scikit-learn's diabetes data: the noise's precision from the prior and from validation data, conformal
                intervals; and a curve with its band
speed           100 passes beside one, and beside loops over passes

Each topic writes its tables (CSV and Markdown) and figures (PNG). Numbers are means over seeds, with standard errors: a
seed has its own split, initialisation and masks. Nothing is tuned or fitted on the test sets. A minute on two cores,
of which half is compilation. PyTorch's loop is timed, with the dense network, where torch is installed.
"""
