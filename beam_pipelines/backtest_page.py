from transforms.domain.backtest_report import Report


def page_of(report: Report) -> str:
    return ""
