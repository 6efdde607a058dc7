-- Opens train.py, waits for the diagnostics, applies the safe fixes, and writes what it saw and what the buffer then holds.
vim.g.memlint_command = { vim.env.MEMLINT_PYTHON, "-c", "from memlint.cli.main import main; main()", "server" }
dofile(vim.env.MEMLINT_EDITORS .. "/neovim/memlint.lua")
vim.cmd("filetype on")
vim.cmd("edit train.py")
local seen = {}
vim.wait(60000, function()
  seen = vim.diagnostic.get(0)
  return #seen > 0
end, 50)
local report = {}
for _, diagnostic in ipairs(seen) do
  table.insert(report, string.format("%d:%d %s", diagnostic.lnum + 1, diagnostic.col + 1, diagnostic.message))
end
vim.cmd("MemlintFixAll")
vim.cmd("write")
vim.fn.writefile(report, "diagnostics.txt")
vim.cmd("quitall!")
