"""The console: pages for people, made here of what the client tells, readable without script.

A page is an `HttpRoute` whose scope is the path that a program would ask for, so a token shows of
the console what it may read over HTTP. Everything shown was written by somebody: templates escape
all of it, and the Content-Security-Policy runs nothing but the two files in ``static``.
"""
