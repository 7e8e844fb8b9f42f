module serve_app/pause

go 1.24.0
