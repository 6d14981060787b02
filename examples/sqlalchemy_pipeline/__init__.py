"""Bills orders: validated, priced outside of the database, booked in one transaction.

`python -m examples.sqlalchemy_pipeline` bills a few orders on a SQLite file that is
thrown away; give it the URL of a database to use another.
"""
