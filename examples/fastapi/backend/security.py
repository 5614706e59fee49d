"""Passwords and tokens."""

import hashlib
import hmac
import os
import time
import uuid
from typing import Any, Dict

import jwt
from fastapi import Depends, HTTPException, status
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.orm import Session

from . import config
from .db import get_db
from .models import User, UserSession, UserStatus

bearer = OAuth2PasswordBearer(tokenUrl="/v1/auth/login")


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    return salt.hex() + "$" + _derive(password, salt).hex()


def check_password(password: str, stored: str) -> bool:
    salt, _, digest = stored.partition("$")
    return hmac.compare_digest(_derive(password, bytes.fromhex(salt)).hex(), digest)


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**12, r=8, p=1)


def issue(user: User, session: UserSession, kind: str, ttl_seconds: int) -> str:
    now = int(time.time())
    claims = {
        "sub": str(user.id),
        "email": user.email,
        "sid": str(session.id),
        "type": kind,
        "iat": now,
        "exp": now + ttl_seconds,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, config.JWT_SECRET, algorithm="HS256")


def unauthorized(detail: str = "Could not validate credentials") -> HTTPException:
    return HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def decode(token: str, kind: str) -> Dict[str, Any]:
    try:
        claims = jwt.decode(token, config.JWT_SECRET, algorithms=["HS256"])
    except jwt.PyJWTError as err:
        raise unauthorized() from err
    if claims.get("type") != kind:
        raise unauthorized()
    return claims


def live_session(db: Session, claims: Dict[str, Any]) -> UserSession:
    """The token's session, if nobody has revoked it."""
    session = db.get(UserSession, uuid.UUID(claims["sid"]))
    if session is None or session.revoked_at is not None:
        raise unauthorized()
    return session


def current_user(token: str = Depends(bearer), db: Session = Depends(get_db)) -> User:
    claims = decode(token, "access")
    live_session(db, claims)
    user = db.get(User, uuid.UUID(claims["sub"]))
    if user is None or user.status != UserStatus.active:
        raise unauthorized()
    return user
