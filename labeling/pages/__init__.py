"""The Gradio pages: comparing in a browser, and watching a run."""
