"""Files that are no plain text, read as text: PDF, DOCX, HTML, notebooks, tables and zip archives."""
