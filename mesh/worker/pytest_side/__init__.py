"""The part of the runner that lives in the suite's environment: the standard library and pytest only.

The node starts `start.py` by its path, with the suite's interpreter; that becomes the *zygote*: it configures pytest
once (plugins, conftests), then forks a *slot* process for each test to be run at once, and reaps them. A slot collects
the files that it is given and runs one test after another.

```
node -> zygote   Unix socket: one JSON object a line; a slot's two pipe ends travel with its "start"
zygote -> node   the same socket: ready, collected, started, exited
node -> slot     a pipe of fixed-size tokens, each naming one line of the session's item file (see `wire`)
slot -> node     a pipe of frames
```

The read end of a slot's token pipe is open in the node as well: a token belongs to whoever reads it first, so that the
node can take back what a slot has not begun, exactly and without asking.

Nothing here may import from outside this folder: it is loaded under the name `_mesh_pytest_side`, so that no module of
the suite is ever shadowed.
"""
