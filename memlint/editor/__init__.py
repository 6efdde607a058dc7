"""The language server: diagnostics, fixes and rule pages in every editor that speaks LSP. A caller of the core."""
