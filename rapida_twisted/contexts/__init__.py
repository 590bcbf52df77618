"""Who is on the phone: the record that joins a registration to its media, and where it is kept."""
