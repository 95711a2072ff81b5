"""CO2 at Mauna Loa, extrapolated: Monte Carlo dropout with ReLU and with tanh beside a Gaussian process.

    python -m experiments co2 --data-dir FOLDER

Networks of three hidden layers of 1,024 with dropout 0.1 before each of them but the first, and before the last one,
learn 272 standardised months by 3,000 full-batch steps (Adam, a cosine from 1e-3 to 0, L2 of the kernels by 1e-6);
three seeds as one program. 200 passes, each one function of the time, go on for 24 years. The Gaussian process is
scikit-learn's, with a squared-exponential kernel and noise, fitted by its marginal likelihood from eleven starts.

The table has the standard deviation of the predicted function where the data end and at three distances from there.
Expect that of ReLU networks to grow away from the data, that of tanh networks to stay, and that of the process to reach
its prior's at once, since its length scale is that of the seasons. The networks follow the seasons near time zero only:
farther out they have the trend. FOLDER has train.h5 and test.h5 (github.com/yaringal/DropoutUncertaintyCaffeModels,
co2_regression), or a folder co2 with them. Needs h5py, of the extra `experiments`. Writes co2.csv, co2.md and co2.png.
About twenty minutes on two cores.

Paper: Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", figure 2 (there four and five layers).
"""
