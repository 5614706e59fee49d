"""The auth backend: uvicorn backend.auth:app --port 8001 --proxy-headers"""

from datetime import datetime, timezone
from typing import Any, Dict, Optional

from fastapi import Depends, FastAPI, HTTPException, Request, status
from pydantic import BaseModel, Field
from sqlalchemy import or_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from . import config, security
from .db import get_db
from .limits import limit_login
from .models import User, UserSession, UserStatus

app = FastAPI(title="Auth backend")


class Registration(BaseModel):
    email: str = Field(regex=r"^[^@\s]+@[^@\s]+$", max_length=255)
    username: str = Field(min_length=1, max_length=64)
    password: str = Field(min_length=8, max_length=256)


class Credentials(BaseModel):
    username: str
    password: str


class Refresh(BaseModel):
    refresh_token: str


def public(user: User) -> Dict[str, Any]:
    return {
        "id": str(user.id),
        "email": user.email,
        "username": user.username,
        "status": user.status.value,
        "created_at": user.created_at.isoformat(),
    }


def tokens(user: User, session: UserSession) -> Dict[str, Any]:
    return {
        "access_token": security.issue(user, session, "access", config.ACCESS_TTL_SECONDS),
        "refresh_token": security.issue(user, session, "refresh", config.REFRESH_TTL_SECONDS),
        "token_type": "bearer",
        "expires_in": config.ACCESS_TTL_SECONDS,
    }


@app.post("/v1/auth/register", status_code=status.HTTP_201_CREATED)
def register(body: Registration, db: Session = Depends(get_db)) -> Dict[str, Any]:
    user = User(email=body.email, username=body.username, password_hash=security.hash_password(body.password))
    db.add(user)
    try:
        db.commit()
    except IntegrityError as err:
        raise HTTPException(status.HTTP_409_CONFLICT, "Email or username already registered") from err
    return public(user)


@app.post("/v1/auth/login")
def login(body: Credentials, request: Request, db: Session = Depends(get_db)) -> Dict[str, Any]:
    user: Optional[User] = (
        db.query(User).filter(or_(User.email == body.username, User.username == body.username)).one_or_none()
    )
    if user is not None:
        limit_login(user.email)
    if user is None or not security.check_password(body.password, user.password_hash):
        raise security.unauthorized("Incorrect username or password")
    if user.status != UserStatus.active:
        raise HTTPException(status.HTTP_403_FORBIDDEN, f"Account is {user.status.value}")
    session = UserSession(
        user_id=user.id,
        user_agent=request.headers.get("user-agent"),
        ip=request.client.host if request.client else None,
    )
    db.add(session)
    db.commit()
    return tokens(user, session)


@app.post("/v1/auth/refresh")
def refresh(body: Refresh, db: Session = Depends(get_db)) -> Dict[str, Any]:
    session = security.live_session(db, security.decode(body.refresh_token, "refresh"))
    user = db.get(User, session.user_id)
    if user is None or user.status != UserStatus.active:
        raise security.unauthorized()
    session.last_seen_at = datetime.now(timezone.utc)
    db.commit()
    return tokens(user, session)


@app.get("/v1/auth/me")
def me(user: User = Depends(security.current_user)) -> Dict[str, Any]:
    return public(user)


@app.get("/v1/auth/health")
def health() -> Dict[str, str]:
    return {"status": "ok"}
