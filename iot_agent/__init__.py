"""The device side: a daemon that onboards a machine to AWS IoT Core and keeps its certificate fresh for life."""

__version__ = "0.1.0"
