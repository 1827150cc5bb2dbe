"""The dialect of libcomposefs, for the commands that stand in for its tools.

``mkcomposefs`` and ``composefs-info`` disagree with composefs-rs in places: they believe
link counts instead of counting, keep the order of xattrs, and take dumpfiles that
composefs-rs refuses. bootc's own images follow composefs-rs, so everything about this
dialect is here and nothing else in ``formats`` knows of it. The readers and the layout
rules here are subclasses of the strict ones.

Source: the behaviour of the tools of libcomposefs 1.0.8.
"""
