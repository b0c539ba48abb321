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
    from serving import answers, auth, dashboard, desk, inventory, reference, routes
    from serving.access_log import AccessLog
    from serving.app import App
    from serving.metrics import Metrics
    from serving.openapi import MAX_BODY_BYTES
    from serving.progress import watch
    from serving.store import Store
    from serving.stream import Streams

    metrics = Metrics(config.metrics_dir, config.batch_report, routes.declared_metrics)
    access_log = None if config.access_log == "off" else AccessLog(with_path=config.access_log == "path")
    app = App(metrics, access_log)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.extensions["streamforge.config"] = config
    app.extensions["streamforge.metrics"] = metrics
    app.extensions["streamforge.store"] = Store(config, metrics.redis_errors.inc, metrics.redis_connections.inc)
    app.extensions["streamforge.progress"] = watch(config)
    # Streams wait for a store of their own: one connection, and no request waits behind them.
    app.extensions["streamforge.streams"] = Streams(
        Store(config, metrics.redis_errors.inc, metrics.redis_connections.inc), config.streams, config.retry_after_s
    )
    app.register_blueprint(routes.api)
    app.register_blueprint(inventory.api)
    app.register_blueprint(desk.api)
    if config.events:
        from serving.ingest.routes import open_door

        open_door(app, config, metrics)
    if config.decisions:
        from serving.decisions.routes import open_decisions

        open_decisions(app, config, metrics)
    if config.metrics_route:
        metrics.register_endpoint("/metrics", app)
    app.register_blueprint(reference.pages)
    app.register_blueprint(dashboard.pages)
    answers.answer_errors(app)
    metrics.declare(rule.rule for rule in app.url_map.iter_rules())
    auth.guard(app, config)
    return app
