"""Serves the console: `python -m console.web`, with the settings of its environment."""

import uvicorn

from console.web.app import create_app
from console.web.doors import Doors
from console.web.open_id import OpenId, provider_from
from console.work import people
from infra.services import CONSOLE, metrics_port
from infra.settings import Settings
from projections.worker import serve_metrics


def doors(settings: Settings) -> Doors:
    """The parts of the console that these settings make."""
    provider = provider_from(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret.get_secret_value(),
        settings.oidc_roles_claim,
        settings.oidc_roles,
    )
    callback = f"{settings.console_url}/sign-in/oidc/callback"
    return Doors(
        people=people(settings),
        public_url=settings.console_url,
        open_id=OpenId(provider, callback) if provider else None,
    )


def main() -> None:
    """Run until told to stop."""
    settings = Settings()
    serve_metrics(metrics_port(settings, CONSOLE))
    app = create_app(doors(settings))
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.console_port,
        access_log=False,  # it would write down what people search for
        server_header=False,
        date_header=True,
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=5,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
