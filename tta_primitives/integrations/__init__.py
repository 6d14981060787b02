"""One thin module for each host and engine that workflows run in.

None is imported by anything else, and each imports its own library: import the one
whose library you have.
"""
