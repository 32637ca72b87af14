"""Programs for developers: training the shipped prior and the evaluation's classifier."""
