"""Images for people: colors, sheets, captions, videos.  Nothing here knows of spikes or scenes."""
