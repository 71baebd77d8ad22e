"""Container Network Interface: execution of network plugins for pods (CNI specification 1.1).

``config.py`` reads network configurations, ``network_list.py`` executes them, ``conf_monitor.py``
knows which one is in use.
"""
