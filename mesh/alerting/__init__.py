"""Alerts, looked for, agreed on and told: the services around `mesh.anomalies`.

`config` reads the rules and sinks of a node; `keeper` decides and proposes while this node leads, with `judging` and
`watching`; `telling` sees that each sink hears of each alert once; `sinks` are how; `lonely` is for what can't go
through the log; `service` puts them together.
"""
