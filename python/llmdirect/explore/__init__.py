"""Local web pages of a run (`llmdirect explore`).

app: routes and security headers; access: which requests are answered; server, http: the process; people:
users, new users and changed interests; pages, person_pages, item_pages, style: HTML and CSS; prefetch: texts
of the list that is shown.
"""
