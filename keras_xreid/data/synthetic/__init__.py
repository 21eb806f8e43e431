"""The built-in set: drawn people, drawn on the user's machine.

`people` says who is drawn and keeps the images. `body` and `cloth` draw a person, `scenes` the
place, `canvas` the photograph. Whoever changes a pixel raises `people.VERSION`.
"""
