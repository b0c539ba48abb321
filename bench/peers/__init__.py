"""Programs that do the fraud job's work with other tools. They share no code with the pipeline: equal results are a
check of both.

Each drains a topic to its end offsets and prints one line of JSON:

    events        records read
    seconds       from the start of the process
    read_seconds  from the first record read to the last result
    cpu_seconds   of the process and its children
    peak_mb       largest resident memory
    alerts        distinct (rule, user, order)

`--alerts FILE` receives the sorted alerts, one `RULE user order` a line.
"""
