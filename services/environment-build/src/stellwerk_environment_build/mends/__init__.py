"""Modules that are copied into environments, to put right what a substituted package changed.

Each is imported at every start of the environment's interpreter, so it only sets a trap and
returns; standard library only. Their list is ``stellwerk.override_table.MENDS``.
"""
