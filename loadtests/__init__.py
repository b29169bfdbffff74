"""Measures the gateways beside their peers on this machine, one program for each row of what is promised.

    .venv/bin/python -m loadtests.NAME [rounds]

Servers run on core 0, the load on core 1. All sides serve in turns within one run, so that what else the machine does
falls on all of them; medians are printed with the lowest and the highest, and only ratios count.
"""
