"""Settings, from the environment."""

import os
import sys


def require(name: str) -> str:
    """The variable's value; without one the process ends and says which."""
    value = os.environ.get(name, "")
    if not value:
        sys.exit(f"{name} is not set; README.md says what the backends need")
    return value


DATABASE_URL = require("DATABASE_URL")
JWT_SECRET = require("JWT_SECRET")
# Without Redis the backend does not limit logins.
REDIS_URL = os.environ.get("REDIS_URL", "")

ACCESS_TTL_SECONDS = 30 * 60
REFRESH_TTL_SECONDS = 14 * 24 * 3600
# Logins of one account that are tried within LOGIN_WINDOW_SECONDS.
LOGIN_ATTEMPTS = 5
LOGIN_WINDOW_SECONDS = 15 * 60
