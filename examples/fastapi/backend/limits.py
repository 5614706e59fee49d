"""The backends' own rate limit: failed and successful logins of one account."""

from typing import Optional

import redis
from fastapi import HTTPException, status

from . import config

_client: Optional[redis.Redis] = redis.Redis.from_url(config.REDIS_URL) if config.REDIS_URL else None


def limit_login(email: str) -> None:
    if _client is None:
        return
    key = f"rate_limit:login:account:{email}"
    count = _client.incr(key)
    if count == 1:
        _client.expire(key, config.LOGIN_WINDOW_SECONDS)
    if count > config.LOGIN_ATTEMPTS:
        raise HTTPException(status.HTTP_429_TOO_MANY_REQUESTS, "Too many login attempts for this account")
