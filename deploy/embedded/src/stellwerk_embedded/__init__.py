"""The whole platform as processes on one machine: ``stellwerk up | down | status | doctor``."""
