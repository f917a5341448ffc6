"""Pages for people: what the Hub holds, read-only, as HTML made on the server.

`routes` finds the page of a URL and answers with headers under which a browser loads nothing from elsewhere and runs
no script; `views` gathers what a page shows, the templates beside this file lay it out, `markdown` turns a card into
harmless HTML, `graph` lays out a lineage. Everything shown comes from users and is escaped.
"""
