"""Images for display: colors, sheets, captions, videos.  Nothing here depends on spikes or scenes."""
