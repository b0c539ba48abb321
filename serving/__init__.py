"""The REST API over the online store: `create_app(Config(...))` makes the Flask app, `python -m serving` serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.config import Config, ConfigError

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["Config", "ConfigError", "create_app"]


def create_app(config: Config) -> Flask:
    """The whole app. It opens no connection: a store that is away is a 503 per request, not a failed start.

    Raises:
      ConfigError: a setting cannot be right.
    """
    # Imported here because prometheus_client decides when it is first imported whether it shares its numbers between
    # processes, and `python -m serving` imports this package before it can say so.
    from flask import Flask

    from serving import answers, dashboard, routes
    from serving.metrics import Metrics
    from serving.store import Store

    app = Flask("serving", static_folder=None)
    app.url_map.merge_slashes = False  # a path with // is unknown, not a redirect
    metrics = Metrics(config.metrics_dir)
    app.extensions["streamforge.config"] = config
    app.extensions["streamforge.metrics"] = metrics
    app.extensions["streamforge.store"] = Store(config, count_error=metrics.redis_errors.inc)
    app.register_blueprint(routes.api)
    app.register_blueprint(routes.scrape)
    app.register_blueprint(dashboard.pages)
    answers.answer_errors(app)
    metrics.watch(app)
    return app
