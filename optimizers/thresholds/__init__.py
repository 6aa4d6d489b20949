"""Thresholds of alerts, learnt from history: the pure rules, what is calibrated, and the decision per threshold.

In: samples of 5 minutes. Out: warn and critical per hour of the day, weekdays and weekends apart, or why not.
Promise: no I/O and no clock in `rules` and `calibrate`; a threshold moves only when every guard lets it.
"""
