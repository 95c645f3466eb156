"""The pages for people."""

from fastapi import FastAPI, Request, Response

from console.web.rendering import page


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/", include_in_schema=False)(home)


async def home(request: Request) -> Response:
    """Where somebody lands who has signed in."""
    return page(request, "home.html")
