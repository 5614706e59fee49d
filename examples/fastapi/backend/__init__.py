"""Two backends of the kind that Quotagate is put in front of.

They know nothing of it: they have their own users, sessions, tokens and rate
limits, in their own schema, and no plans, quotas or billing.
"""
