"""Counting blocked requests by hour and weekday, and releasing the counts so that they say nothing about a person."""
