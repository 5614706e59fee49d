"""The dashboard backend: uvicorn backend.dashboard:app --port 8002 --proxy-headers"""

from typing import Any, Dict, List

from fastapi import Depends, FastAPI, Request, status
from sqlalchemy.orm import Session

from . import security
from .db import get_db
from .models import Job, User

app = FastAPI(title="Dashboard backend")


def public(job: Job) -> Dict[str, Any]:
    return {"id": str(job.id), "status": job.status, "created_at": job.created_at.isoformat()}


@app.post("/jobs", status_code=status.HTTP_201_CREATED)
def create_job(user: User = Depends(security.current_user), db: Session = Depends(get_db)) -> Dict[str, Any]:
    job = Job(user_id=user.id)
    db.add(job)
    db.commit()
    return public(job)


@app.get("/jobs")
def list_jobs(user: User = Depends(security.current_user), db: Session = Depends(get_db)) -> Dict[str, Any]:
    jobs: List[Job] = db.query(Job).filter(Job.user_id == user.id).order_by(Job.created_at).all()
    return {"jobs": [public(job) for job in jobs], "total": len(jobs)}


@app.get("/items")
def items() -> List[Dict[str, Any]]:
    return [{"id": 1, "name": "first"}, {"id": 2, "name": "second"}]


@app.get("/whoami")
def whoami(request: Request) -> Dict[str, Any]:
    """What the backend is told of its client."""
    return {"client": request.client.host if request.client else None, "scheme": request.url.scheme}


@app.get("/health")
def health() -> Dict[str, str]:
    return {"status": "ok"}
