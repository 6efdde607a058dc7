;; Opens train.py, waits for the diagnostics, applies the safe fixes, and writes what it saw and what the buffer then holds.
(package-initialize)
(load (expand-file-name "emacs/memlint.el" (getenv "MEMLINT_EDITORS")))
(setq memlint-command
      (list (getenv "MEMLINT_PYTHON") "-c" "from memlint.cli.main import main; main()" "server")
      eglot-sync-connect t
      eglot-connect-timeout 60)
(find-file "train.py")
(apply #'eglot (eglot--guess-contact))
(flymake-mode 1)
(let ((tries 1200))
  (while (and (> tries 0) (null (flymake-diagnostics)))
    (setq tries (1- tries))
    (accept-process-output nil 0.05)))
(with-temp-file "diagnostics.txt"
  (insert (mapconcat
           (lambda (one)
             (with-current-buffer "train.py"
               (save-excursion
                 (goto-char (flymake-diagnostic-beg one))
                 (format "%d:%d %s" (line-number-at-pos) (1+ (current-column)) (flymake-diagnostic-text one)))))
           (with-current-buffer "train.py" (flymake-diagnostics))
           "\n")))
(with-current-buffer "train.py"
  (memlint-fix-all)
  (save-buffer))
