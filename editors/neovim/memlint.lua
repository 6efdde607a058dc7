-- memlint in Neovim 0.7 or newer: copy it to lua/memlint.lua of your configuration, and call require("memlint").
-- From Neovim 0.11 on, vim.lsp.config and vim.lsp.enable do the same in fewer lines (docs/editors.md).
local group = vim.api.nvim_create_augroup("memlint", {})

local function start(buffer)
  local file = vim.api.nvim_buf_get_name(buffer)
  local marker = vim.fs and vim.fs.find({ "pyproject.toml", ".git" }, { upward = true, path = file })[1]
  local root = marker and vim.fn.fnamemodify(marker, ":h") or vim.fn.fnamemodify(file, ":h")
  for _, client in pairs(vim.lsp.get_active_clients()) do
    if client.name == "memlint" and client.config.root_dir == root then
      return vim.lsp.buf_attach_client(buffer, client.id)
    end
  end
  local client = vim.lsp.start_client({
    name = "memlint",
    cmd = vim.g.memlint_command or { "memlint", "server" },
    root_dir = root,
    init_options = { settings = vim.g.memlint_settings },
  })
  if client then
    vim.lsp.buf_attach_client(buffer, client)
  end
end

vim.api.nvim_create_autocmd("FileType", {
  group = group,
  pattern = "python",
  callback = function(event)
    start(event.buf)
  end,
})

-- :MemlintFixAll applies all safe fixes to the buffer.
vim.api.nvim_create_user_command("MemlintFixAll", function()
  local parameters = vim.lsp.util.make_range_params()
  parameters.context = { diagnostics = {}, only = { "source.fixAll.memlint" } }
  local answers = vim.lsp.buf_request_sync(0, "textDocument/codeAction", parameters, 10000)
  for id, answer in pairs(answers or {}) do
    for _, action in pairs(answer.result or {}) do
      vim.lsp.util.apply_workspace_edit(action.edit, vim.lsp.get_client_by_id(id).offset_encoding)
    end
  end
end, {})
