;;; memlint.el --- memlint in Emacs, through eglot  -*- lexical-binding: t -*-

;; Emacs 29 has eglot; older ones get it from GNU ELPA (or Debian's elpa-eglot). Then M-x eglot in a Python buffer
;; shows memlint's findings, and M-x memlint-fix-all applies all safe fixes to the buffer.

(require 'eglot)

(defvar memlint-command '("memlint" "server")
  "The command that starts memlint's language server.")

(add-to-list 'eglot-server-programs
             (cons 'python-mode (lambda (&rest _) memlint-command)))

(defun memlint-fix-all ()
  "Apply all safe fixes to the buffer."
  (interactive)
  (eglot-code-actions (point-min) (point-max) "source.fixAll.memlint" t))

(provide 'memlint)
;;; memlint.el ends here
