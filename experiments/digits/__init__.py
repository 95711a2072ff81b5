"""Handwritten digits: dropout against overfitting, and Monte Carlo dropout for uncertainty.

Trains a dense 64-256-256-10 network on 300 of scikit-learn's 1,797 bundled 8x8 digits, without dropout and with rate
0.5 before each of the last two layers: five seeds each, all ten networks in one vmapped, jitted program (the rate is
traced). Each seed has its own split, initialisation, order and masks; the other 1,497 digits are its test set.
Nothing is tuned on them.

Compares no dropout, dropout with the deterministic forward pass, and dropout with 100 Monte Carlo passes. The AUROC
says how well the predictive entropy tells test digits from test digits with half of their pixels replaced by uniform
noise ("corrupted"), and from 8x8 patches of scikit-learn's two bundled photographs ("photographs").

    python -m experiments digits

Writes digits.csv, digits.md and digits.png. Under a minute on two cores.
"""
