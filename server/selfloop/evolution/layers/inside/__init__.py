"""Programs that only ever run inside the judge's jail, beside what is judged; standard library and pytest alone."""
